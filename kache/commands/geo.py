"""Rows of places: sorted sets whose scores are geohashes."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("geo",
    row("geoadd", "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
        -5, "write denyoom", "RW update", "3.2.0", "O(log N) for each member",
        "Adds places by longitude and latitude, or moves those that are there.", cluster="native"),
    row("geodist", "key member1 member2 [M | KM | FT | MI]", -4, "readonly", "RO access", "3.2.0", "O(1)",
        "Returns the distance between two places.", cluster="native"),
    row("geohash", "key [member [member ...]]", -2, "readonly", "RO access", "3.2.0", "O(M) places asked for",
        "Returns the standard geohash texts of places.", cluster="native"),
    row("geopos", "key [member [member ...]]", -2, "readonly", "RO access", "3.2.0", "O(M) places asked for",
        "Returns longitude and latitude of places.", cluster="native"),
    row("georadius",
        "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] "
        "[ASC | DESC] [STORE storekey | STOREDIST storedistkey]",
        -6, "write denyoom", "RO access;OW update variable_flags STORE>6;OW update variable_flags STOREDIST>6", "3.2.0",
        "O(N + M*log(M)), N places near the circle, M inside",
        "Finds, and may store, the places within a distance of a position.", route="move", cluster="one_slot"),
    row("georadius_ro",
        "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] "
        "[ASC | DESC]",
        -6, "readonly", "RO access", "3.2.10", "O(N + M*log(M)), N places near the circle, M inside",
        "Finds the places within a distance of a position; never stores.", cluster="native"),
    row("georadiusbymember",
        "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] "
        "[STORE storekey | STOREDIST storedistkey]",
        -5, "write denyoom", "RO access;OW update variable_flags STORE>5;OW update variable_flags STOREDIST>5", "3.2.0",
        "O(N + M*log(M)), N places near the circle, M inside",
        "Finds, and may store, the places within a distance of another place.", route="move", cluster="one_slot"),
    row("georadiusbymember_ro",
        "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
        -5, "readonly", "RO access", "3.2.10", "O(N + M*log(M)), N places near the circle, M inside",
        "Finds the places within a distance of another place; never stores.", cluster="native"),
    row("geosearch",
        "key [FROMMEMBER member | FROMLONLAT longitude latitude] <BYRADIUS radius <M | KM | FT | MI> | BYBOX width "
        "height <M | KM | FT | MI> | BYPOLYGON num-vertices longitude latitude [longitude latitude ...]> [ASC | "
        "DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
        -7, "readonly", "RO access", "6.2.0", "O(N + M*log(M)), N places near the area, M inside",
        "Finds the places inside a circle, a box or a polygon.", cluster="native"),
    row("geosearchstore",
        "destination source [FROMMEMBER member | FROMLONLAT longitude latitude] <BYRADIUS radius <M | KM | FT | MI> "
        "| BYBOX width height <M | KM | FT | MI> | BYPOLYGON num-vertices longitude latitude [longitude latitude "
        "...]> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]",
        -8, "write denyoom", "OW update;RO access @2", "6.2.0", "O(N + M*log(M)), N places near the area, M inside",
        "Stores the places inside a circle, a box or a polygon.", route="move", cluster="one_slot"),
)
# fmt: on
