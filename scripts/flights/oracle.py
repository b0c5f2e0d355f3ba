"""The independent side: the metric tables of flights.toml, computed by DuckDB from the raw flights.

The SQL is written by hand and shares nothing with holdfast. Days come from the flights' own local dates (for the
departures from Python's zoneinfo), not from a database's idea of time zones.
"""

import os
from datetime import date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import duckdb

ZONE = ZoneInfo("America/New_York")

# `round_half_away(n, d)` is n / d rounded half away from zero, in whole numbers; averages are made with it, because
# DuckDB's own are floating point. `average(total, scale, rows, digits)`: total has `scale` fractional digits.
MACROS = """
create macro round_half_away(n, d) as
    case when n < 0 then -1 else 1 end * ((2 * abs(n)::hugeint + d) // (2 * d));
create macro average6(total, factor, rows) as
    case when rows = 0 then null else
    (round_half_away((total * factor)::hugeint, rows::hugeint))::decimal(18,0) * 0.000001::decimal(7,6) end;
create macro average8(total, factor, rows) as
    case when rows = 0 then null else
    (round_half_away((total * factor)::hugeint, rows::hugeint))::decimal(18,0) * 0.00000001::decimal(9,8) end;
create macro average10(total, factor, rows) as
    case when rows = 0 then null else
    (round_half_away((total * factor)::hugeint, rows::hugeint))::decimal(20,0) * 0.0000000001::decimal(11,10) end;
"""

TRAFFIC = """
    count(*) as flights,
    count(dep_delay) as left_gate,
    sum(dep_delay) as dep_delay,
    average6(sum(dep_delay), 1000000, count(dep_delay)) as dep_delay_avg,
    min(dep_delay) as dep_delay_min,
    max(dep_delay) as dep_delay_max,
    average6(sum(arr_delay), 1000000, count(arr_delay)) as arr_delay_avg,
    sum(distance) as miles,
    sum(distance_km)::decimal(38,6) as km,
    average10(sum(distance_km)::decimal(28,6), 10000000000, count(distance_km)) as km_avg,
    sum(air_hours)::decimal(38,4) as air_hours,
    average8(sum(air_hours)::decimal(28,4), 100000000, count(air_hours)) as air_hours_avg,
    min(air_hours) as air_hours_min,
    max(speed_mph) as speed_max,
    min(dest) as dest_first,
    max(departed) as departed_last,
    count(distinct tailnum) as tails,
    count(distinct dest) as dests
"""
DELAYED = """
    count(*) as flights,
    sum(dep_delay + coalesce(arr_delay, 0)) as delay_both,
    average6(sum(arr_delay), 1000000, count(arr_delay)) as arr_delay_avg,
    max(dep_delay) as worst,
    count(*) filter (arr_delay > 60) as very_late,
    count(distinct tailnum) as tails
"""
CANCELLED = """
    count(*) as flights,
    sum(distance_km)::decimal(38,6) as km,
    count(distinct flight) as numbers,
    min(scheduled) as first,
    null::bigint as never
"""
ROUTES = """
    count(*) as flights,
    average6(sum(air_minutes), 1000000, count(air_minutes)) as air_avg,
    min(air_minutes) as air_min,
    max(flight_date) as last
"""
ARRIVALS = """
    count(*) as flights,
    count(arr_delay) as landed,
    average6(sum(arr_delay), 1000000, count(arr_delay)) as arr_delay_avg,
    max(arr_delay) as worst,
    sum(distance_km)::decimal(38,6) as km,
    count(distinct carrier) as carriers
"""
IS_DELAYED = "departed is not null and dep_delay > 15"
IS_ROUTE = "(dest[1] = 'S' or dest in ('LAX', 'ORD', 'ATL', 'BOS'))"

# table: (window start in the raw rows, group columns, selected, which rows)
METRIC_TABLES = {
    "traffic_hour": ("hour_start", ["carrier", "origin"], TRAFFIC, "raw"),
    "traffic_day": ("day_start", ["carrier", "origin"], TRAFFIC, "raw"),
    "delayed_hour": ("hour_start", ["carrier", "origin"], DELAYED, f"raw where {IS_DELAYED}"),
    "delayed_day": ("day_start", ["carrier", "origin"], DELAYED, f"raw where {IS_DELAYED}"),
    "cancelled_minute": ("scheduled", ["carrier", "tailnum"], CANCELLED, "raw where departed is null"),
    "cancelled_day": ("day_start", ["carrier", "tailnum"], CANCELLED, "raw where departed is null"),
    "routes_day": ("day_start", ["carrier", "dest", "origin"], ROUTES, f"raw where {IS_ROUTE}"),
    "arrivals_hour": ("left_hour_start", ["dest"], ARRIVALS, "raw where departed is not null"),
    "arrivals_day": ("left_day_start", ["dest"], ARRIVALS, "raw where departed is not null"),
}


def local_days():
    """Each local day of the year with its start and its end in UTC: 23 to 25 hours."""
    utc = ZoneInfo("UTC")

    def midnight(day):
        return datetime(day.year, day.month, day.day, tzinfo=ZONE).astimezone(utc).replace(tzinfo=None)

    day = date(2012, 12, 30)
    while day < date(2014, 1, 5):
        yield day, midnight(day), midnight(day + timedelta(days=1))
        day += timedelta(days=1)


def connect(folder):
    """A database with `raw` (one row a flight) and the metric tables."""
    database = duckdb.connect()
    database.execute("set threads to 2")
    for statement in filter(str.strip, MACROS.split(";\n")):
        database.execute(statement)
    values = ",".join(f"(date '{day}', timestamp '{start}', timestamp '{end}')" for day, start, end in local_days())
    database.execute(f"create table days as select * from (values {values}) days(day, starts, ends)")
    types = {
        "flight_id": "bigint", "flight": "bigint", "dep_delay": "bigint", "arr_delay": "bigint",
        "air_minutes": "bigint", "air_hours": "decimal(9,4)", "distance": "bigint", "distance_km": "decimal(12,6)",
        "speed_mph": "double", "scheduled": "timestamp", "departed": "timestamp", "flight_date": "date",
        "carrier": "text", "tailnum": "text", "origin": "text", "dest": "text", "cancelled": "boolean",
    }
    order = "flight_id carrier flight tailnum origin dest scheduled departed dep_delay arr_delay air_minutes air_hours"
    order = order.split() + ["distance", "distance_km", "speed_mph", "cancelled", "flight_date"]
    columns = ", ".join(f"'{name}': '{types[name]}'" for name in order)
    path = os.path.join(folder, "flights.csv").replace("'", "''")
    database.execute(f"""
        create table raw as
        select flights.*, scheduled_day.starts as day_start, left_day.starts as left_day_start,
            -- New York is whole hours away from UTC, so its hours begin with UTC's.
            date_trunc('hour', scheduled) as hour_start, date_trunc('hour', departed) as left_hour_start
        from read_csv('{path}', header = true, nullstr = '', columns = {{{columns}}}) flights
        join days scheduled_day on scheduled_day.day = flights.flight_date
        left join days left_day on departed >= left_day.starts and departed < left_day.ends""")
    for name, (start, groups, select, rows) in METRIC_TABLES.items():
        grouped = ", ".join(groups)
        database.execute(
            f"create table {name} as select {start} as window_start, {grouped}, {select} from {rows} "
            f"group by {start}, {grouped}")
    return database


def rounded(numerator, denominator, scale):
    """numerator / denominator with `scale` digits, half away from zero, as a whole number of 10^-scale."""
    exact = Fraction(numerator) / Fraction(denominator) * 10**scale
    whole = (2 * abs(exact.numerator) + exact.denominator) // (2 * exact.denominator)
    return whole if exact >= 0 else -whole


def check_averages(database):
    """The macros above against Python's fractions, for every row of two tables. Returns how many were compared."""
    compared = 0
    cases = [
        ("raw", "day_start, carrier, origin", "sum(dep_delay), count(dep_delay)",
         "average6(sum(dep_delay), 1000000, count(dep_delay))", 6),
        ("raw", "hour_start, carrier, origin", "sum(distance_km)::decimal(28,6), count(distance_km)",
         "average10(sum(distance_km)::decimal(28,6), 10000000000, count(distance_km))", 10),
        ("raw", "day_start, carrier", "sum(air_hours)::decimal(28,4), count(air_hours)",
         "average8(sum(air_hours)::decimal(28,4), 100000000, count(air_hours))", 8),
    ]
    for table, groups, parts, average, scale in cases:
        for total, rows, made in database.execute(f"select {parts}, {average} from {table} group by {groups}").fetchall():
            if rows == 0:
                assert made is None, (groups, total, rows, made)
            else:
                assert Fraction(made) * 10**scale == rounded(total, rows, scale), (groups, total, rows, made)
            compared += 1
    return compared
