"""The settings of a cluster.

kinds           how the text of a value is read, checked and shown
settings        every setting, once: name, unit, reason, limits, default
rules           what no setting can say of itself alone
reading         options, variables and files, as a cluster starts
changing        by the names that Redis clients use: CONFIG GET and SET
foreign         parameters of a real server that mean nothing here, for CONFIG GET and SET
client_limits   what clients may cost a router
events          the letters of notify-keyspace-events
document        all settings as a TOML file, with their reasons
file            the TOML file, written back by CONFIG REWRITE
process_count   how many processes the machine gets where nobody says
"""
