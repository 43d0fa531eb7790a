"""The differential oracle: the same commands to Kache and to a real Valkey, replies compared byte for byte."""
