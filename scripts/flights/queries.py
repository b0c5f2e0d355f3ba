"""Generated queries: each once in holdfast's SQL over a metric table, once in DuckDB's SQL, mostly over the raw flights.

Where a query only filters by dimensions and time and its aggregates can be taken over flights directly, the oracle's
side never sees a metric row. Queries that read averages or distinct counts of single rows read DuckDB's own metric rows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

CARRIERS = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL", "AS", "F9", "YV", "HA", "OO"]
ORIGINS = ["EWR", "JFK", "LGA"]
DESTS = ["IAH", "MIA", "BQN", "ATL", "ORD", "LAX", "SFO", "BOS", "SEA", "SJU", "SAN", "STL", "SRQ", "DEN", "HNL", "LEX"]
HOUR, DAY = "hour", "day"
UTC, ZONE = ZoneInfo("UTC"), ZoneInfo("America/New_York")
# Days on which some local times do not exist, or exist twice.
CLOCK_CHANGES = ("2013-03-10", "2013-11-03")


@dataclass
class Query:
    name: str
    holdfast: str
    oracle: str
    # One letter a column of holdfast's answer: `v` a value, `r` a ratio, of which the oracle gives numerator and
    # denominator, so that the rounding is done exactly outside of any database.
    kinds: str
    # Whether the order of the rows is part of the answer.
    ordered: bool = True


@dataclass
class Filter:
    """The same condition on a metric table (for both sides) and on the raw flights."""
    metric: str
    raw: str
    oracle_metric: str = ""

    def __post_init__(self):
        self.oracle_metric = self.oracle_metric or self.metric


def quoted(values):
    return ", ".join(f"'{value}'" for value in values)


class Generator:
    def __init__(self, seed):
        self.random = Random(seed)

    # -- pieces --

    def pick(self, values, count):
        return sorted(self.random.sample(values, count))

    def moment(self, whole_days=False):
        minutes = self.random.randrange(365 * 24) * 60
        moment = datetime(2013, 1, 1) + timedelta(minutes=minutes)
        return moment.replace(hour=0) if whole_days else moment

    def range(self, days):
        start = self.moment()
        return start, start + timedelta(days=self.random.randint(*days))

    def literal(self, moment):
        """A moment as holdfast reads it (without an offset: by New York's clocks) and as DuckDB does (UTC)."""
        local = moment.replace(tzinfo=UTC).astimezone(ZONE).replace(tzinfo=None)
        before = local - timedelta(days=2)
        style = self.random.randrange(5)
        if style == 0 or any(f"{time:%Y-%m-%d}" in CLOCK_CHANGES for time in (local, before)):
            ours = f"'{moment:%Y-%m-%dT%H:%M:%SZ}'"
        elif style == 1:
            ours = f"timestamp '{local:%Y-%m-%d %H:%M:%S}'"
        elif style == 2:
            ours = f"timestamp '{before:%Y-%m-%d %H:%M:%S}' + interval '2 days'"
        elif style == 3:
            # New York's midnight, given as a day.
            midnight = local.replace(hour=0)
            moment = midnight.replace(tzinfo=ZONE).astimezone(UTC)
            ours = f"'{midnight:%Y-%m-%d}'"
        else:
            ours = f"'{local:%Y-%m-%d %H:%M:%S}'"
        return ours, f"timestamp '{moment:%Y-%m-%d %H:%M:%S}'"

    def time(self, window, days=(3, 60)):
        start, end = map(self.literal, self.range(days))
        style = self.random.randrange(3)
        if style == 0:
            text = "{0} >= {1} and {0} < {2}"
        elif style == 1:
            text = "{0} between {1} and {2}"
        else:
            text = "not ({0} < {1} or {0} > {2})"
        return Filter(
            text.format("window_start", start[0], end[0]),
            text.format(f"{window}_start", start[1], end[1]),
            text.format("window_start", start[1], end[1]))

    def dimension(self):
        style = self.random.randrange(10)
        if style == 0:
            text = f"carrier = '{self.random.choice(CARRIERS)}'"
        elif style == 1:
            text = f"carrier in ({quoted(self.pick(CARRIERS, self.random.randint(2, 6)))})"
        elif style == 2:
            text = f"carrier not in ({quoted(self.pick(CARRIERS, self.random.randint(2, 6)))})"
        elif style == 3:
            text = f"carrier like '{self.random.choice(['A%', '%A', '_V', 'U%', '9_', '%', '%9%', 'B6', '__'])}'"
        elif style == 4:
            text = f"carrier not like '{self.random.choice(['A%', '%A', '_V', 'U%'])}'"
        elif style == 5:
            low, high = self.pick(CARRIERS, 2)
            text = f"carrier between '{low}' and '{high}'"
        elif style == 6:
            text = f"origin = '{self.random.choice(ORIGINS)}'"
        elif style == 7:
            text = f"origin <> '{self.random.choice(ORIGINS)}' and carrier >= '{self.random.choice(CARRIERS)}'"
        elif style == 8:
            text = (f"(origin = '{self.random.choice(ORIGINS)}' or carrier = '{self.random.choice(CARRIERS)}')")
        else:
            text = f"not (origin = '{self.random.choice(ORIGINS)}' and carrier < '{self.random.choice(CARRIERS)}')"
        return Filter(text, text)

    def both(self, *filters):
        return Filter(*(" and ".join(getattr(f, side) for f in filters) for side in ("metric", "raw", "oracle_metric")))

    def window(self):
        return self.random.choice([HOUR, DAY])

    # -- templates: the oracle reads the raw flights --

    def totals_by_carrier(self):
        window = self.window()
        where = self.both(self.time(window), self.dimension())
        order = self.random.choice(["carrier", "carrier desc"])
        return Query(
            "totals by carrier",
            f"select carrier, sum(flights) as flights, sum(dep_delay) as delay, min(dep_delay_min) as least, "
            f"max(dep_delay_max) as most, sum(km) as km, max(speed_max) as speed from traffic_{window} "
            f"where {where.metric} group by carrier order by {order}",
            f"select carrier, count(*), sum(dep_delay), min(dep_delay), max(dep_delay), sum(distance_km), "
            f"max(speed_mph) from raw where {where.raw} group by carrier order by {order}",
            "vvvvvvv")

    def totals_by_origin_and_carrier(self):
        window = self.window()
        where = self.time(window, (20, 200))
        least = self.random.randint(1, 3000)
        return Query(
            "having over a total",
            f"select origin, carrier, sum(flights) as flights, sum(miles) as miles, min(dest_first) as first "
            f"from traffic_{window} where {where.metric} group by origin, carrier having sum(flights) >= {least} "
            f"order by flights desc, origin, carrier desc",
            f"select origin, carrier, count(*) as flights, sum(distance), min(dest) from raw where {where.raw} "
            f"group by origin, carrier having count(*) >= {least} order by flights desc, origin, carrier desc",
            "vvvvv")

    def whole_total(self):
        window = self.window()
        where = self.both(self.time(window, (0, 90)), self.dimension())
        return Query(
            "one row over everything",
            f"select sum(flights), sum(left_gate), sum(dep_delay), sum(km), sum(air_hours), min(air_hours_min), "
            f"max(departed_last), min(window_start), max(window_start) from traffic_{window} where {where.metric}",
            f"select nullif(count(*), 0), case when count(*) = 0 then null else count(dep_delay) end, sum(dep_delay), "
            f"sum(distance_km), sum(air_hours), min(air_hours), max(departed), min({window}_start), "
            f"max({window}_start) from raw where {where.raw}",
            "vvvvvvvvv")

    def nothing_matches(self):
        window = self.window()
        column = self.random.choice(["carrier", "origin"])
        return Query(
            "one row over nothing",
            f"select count(*) as n, sum(flights) as flights, min(origin) as o, max(km) as km, avg(miles) as miles "
            f"from traffic_{window} where {column} = 'nobody'",
            f"select 0, null, null, null, null, null",
            "vvvvr")

    def average_delay(self):
        window = self.window()
        where = self.both(self.time(window), self.dimension())
        return Query(
            "the average from sum and count",
            f"select carrier, sum(dep_delay) / sum(left_gate) as mean, sum(km) / sum(flights) as km_each "
            f"from traffic_{window} where {where.metric} group by carrier having sum(left_gate) > 0 order by carrier",
            f"select carrier, sum(dep_delay), count(dep_delay), sum(distance_km), count(*) from raw "
            f"where {where.raw} group by carrier having count(dep_delay) > 0 order by carrier",
            "vrr")

    def by_time(self):
        unit = self.random.choice(["day", "month", "hour"])
        where = self.both(self.time(HOUR, (5, 40)), self.dimension())
        start = {"hour": "hour_start", "day": "day_start", "month": None}[unit]
        start = start or "timezone('UTC', timezone('America/New_York', date_trunc('month', flight_date)::timestamp))"
        limit = self.random.randint(5, 60)
        return Query(
            f"cut to the {unit}",
            f"select date_trunc('{unit}', window_start) as cut, sum(flights) as flights, sum(dep_delay) as delay "
            f"from traffic_hour where {where.metric} group by date_trunc('{unit}', window_start) order by cut limit {limit}",
            f"select {start} as cut, count(*), sum(dep_delay) from raw where {where.raw} "
            f"group by cut order by cut limit {limit}",
            "vvv")

    def delayed_flights(self):
        window = self.window()
        where = self.both(self.time(window), self.dimension())
        return Query(
            "the filtered metric",
            f"select carrier, origin, sum(flights) as flights, sum(delay_both) as both, max(worst) as worst, "
            f"sum(very_late) as very_late from delayed_{window} where {where.metric} group by carrier, origin "
            f"order by flights desc, carrier, origin",
            f"select carrier, origin, count(*) as flights, sum(dep_delay) + sum(coalesce(arr_delay, 0)), "
            f"max(dep_delay), count(case when arr_delay > 60 then 1 end) from raw where dep_delay > 15 and "
            f"departed is not null and {where.raw} group by carrier, origin order by flights desc, carrier, origin",
            "vvvvvv")

    def cancelled_without_aircraft(self):
        window = self.random.choice(["minute", "day"])
        time = self.time("day" if window == "day" else "hour", (30, 300))
        raw_time = time.raw if window == "day" else time.raw.replace("hour_start", "scheduled")
        known = self.random.choice(["tailnum is null", "tailnum is not null"])
        return Query(
            "null is a group",
            f"select carrier, sum(flights) as flights, sum(km) as km, min(first) as first, max(never) as never "
            f"from cancelled_{window} where {known} and {time.metric} group by carrier order by carrier",
            f"select carrier, count(*), sum(distance_km), min(scheduled), null from raw where departed is null and "
            f"{known} and {raw_time} group by carrier order by carrier",
            "vvvvv")

    def tails_of_cancelled(self):
        place = self.random.choice(["first", "last"])
        direction = self.random.choice(["", " desc"])
        least = self.random.randint(1, 4)
        time = self.time(DAY, (60, 300))
        return Query(
            f"nulls {place}",
            f"select tailnum, sum(flights) as flights from cancelled_day where {time.metric} group by tailnum "
            f"having sum(flights) > {least} order by tailnum{direction} nulls {place} limit 40",
            f"select tailnum, count(*) from raw where departed is null and {time.raw} group by tailnum "
            f"having count(*) > {least} order by tailnum{direction} nulls {place} limit 40",
            "vv")

    def destinations(self):
        window = self.window()
        time = self.time(window, (5, 100))
        raw = time.raw.replace(f"{window}_start", f"left_{window}_start")
        dests = quoted(self.pick(DESTS, self.random.randint(2, 9)))
        limit, offset = self.random.randint(1, 10), self.random.randint(0, 3)
        return Query(
            "another table, by destination",
            f"select dest, sum(flights) as flights, sum(landed) as landed, max(worst) as worst, sum(km) as km "
            f"from arrivals_{window} where dest in ({dests}) and {time.metric} group by dest "
            f"order by sum(km) desc, dest limit {limit} offset {offset}",
            f"select dest, count(*), count(arr_delay), max(arr_delay), sum(distance_km) from raw "
            f"where departed is not null and dest in ({dests}) and {raw} group by dest "
            f"order by sum(distance_km) desc, dest limit {limit} offset {offset}",
            "vvvvv")

    def destinations_ahead(self):
        window = self.window()
        time = self.time(window, (1, 30))
        raw = time.raw.replace(f"{window}_start", f"left_{window}_start")
        pattern = self.random.choice(["S%", "%A", "_A_", "B__", "%O%", "LA_"])
        return Query(
            "like over the partition key",
            f"select dest, count(*) as windows, sum(flights) as flights from arrivals_{window} "
            f"where dest like '{pattern}' and {time.metric} group by dest order by 3 desc, 1",
            f"select dest, count(distinct left_{window}_start), count(*) as flights from raw "
            f"where departed is not null and dest like '{pattern}' and {raw} group by dest order by flights desc, dest",
            "vvv")

    def late_or_not(self):
        time = self.time(DAY, (5, 60))
        limit = self.random.choice([100, 1000, 5000])
        return Query(
            "case in a group",
            f"select case when origin = 'JFK' then 'Queens' when origin = 'EWR' then 'Jersey' else 'other' end as side, "
            f"sum(flights) as flights, sum(case when origin = 'JFK' then km else 0 end) as jfk_km from traffic_day "
            f"where {time.metric} group by case when origin = 'JFK' then 'Queens' when origin = 'EWR' then 'Jersey' "
            f"else 'other' end having sum(flights) < {limit * 10} order by side",
            f"select case origin when 'JFK' then 'Queens' when 'EWR' then 'Jersey' else 'other' end as side, count(*), "
            f"coalesce(sum(distance_km) filter (origin = 'JFK'), 0) from raw where {time.raw} group by side "
            f"having count(*) < {limit * 10} order by side",
            "vvv")

    def kilometres_and_miles(self):
        window = self.window()
        where = self.both(self.time(window), self.dimension())
        return Query(
            "decimal arithmetic",
            f"select origin, sum(km) - sum(miles) * 1.609344 as difference, sum(km) * 2 + 0.5 as twice, "
            f"-sum(dep_delay) as minus from traffic_{window} where {where.metric} group by origin order by origin",
            f"select origin, 0, sum(distance_km) * 2 + 0.5, -sum(dep_delay) from raw where {where.raw} "
            f"group by origin order by origin",
            "vvvv")

    def averages_of_rows(self):
        """avg over metric rows: sum and count of the hours' own numbers."""
        where = self.both(self.time(HOUR, (2, 20)), self.dimension())
        return Query(
            "avg over windows",
            f"select carrier, origin, avg(flights) as each, avg(km) as km, count(*) as windows from traffic_hour "
            f"where {where.metric} group by carrier, origin order by carrier, origin",
            f"select carrier, origin, count(*), count(distinct hour_start), sum(distance_km), "
            f"count(distinct hour_start), count(distinct hour_start) from raw where {where.raw} "
            f"group by carrier, origin order by carrier, origin",
            "vvrrv")

    # -- templates: the oracle reads its own metric rows --

    def same(self, name, text, where):
        """One text for both sides, but for the filter that stands for WHERE."""
        columns = text.split(" from ")[0]
        for inner in ("(12,2)", "(dep_delay, -1)", "(dep_delay_min, 0)"):
            columns = columns.replace(inner, "")
        return Query(
            name, text.replace("WHERE", where.metric), text.replace("WHERE", where.oracle_metric),
            "v" * (columns.count(",") + 1))

    def rows_of_a_day(self):
        window = self.window()
        where = self.both(self.time(window, (1, 20)), self.dimension())
        limit, offset = self.random.randint(1, 200), self.random.randint(0, 30)
        text = (
            f"select window_start, carrier, origin, flights, dep_delay_avg, arr_delay_avg, km_avg, air_hours_avg, tails, "
            f"dests from traffic_{window} where WHERE order by window_start, carrier desc, origin limit {limit} "
            f"offset {offset}")
        return self.same("rows as they are", text, where)

    def worst_rows(self):
        window = self.window()
        where = self.time(window, (10, 200))
        column = self.random.choice(["dep_delay_avg", "arr_delay_avg", "dep_delay_max", "speed_max", "departed_last", "tails"])
        direction, place = self.random.choice(["asc", "desc"]), self.random.choice(["first", "last"])
        text = (
            f"select {column}, window_start, carrier, origin from traffic_{window} where WHERE "
            f"order by {column} {direction} nulls {place}, window_start, carrier, origin limit {self.random.randint(1, 50)}")
        return self.same("the most extreme rows", text, where)

    def filtered_by_values(self):
        conditions = [
            f"dep_delay_avg > {self.random.randint(-5, 60)}.5", f"flights between {self.random.randint(1, 5)} and 40",
            f"km >= {self.random.randint(100, 20000)}.25", "dep_delay is null", "dep_delay is not null",
            f"tails = flights", f"tails < flights", f"dep_delay_max - dep_delay_min > {self.random.randint(10, 200)}",
            f"coalesce(arr_delay_avg, 0) <= {self.random.randint(-20, 20)}", "flights > left_gate",
            f"dest_first like '{self.random.choice('ABCDS')}%'", f"speed_max > {self.random.randint(300, 500)}.5",
            f"departed_last is null or departed_last > window_start + interval '{self.random.randint(1, 50)} minutes'",
            f"miles in ({self.random.randint(100, 3000)}, 1400, 1416, 2475, 1089)",
        ]
        chosen = self.random.sample(conditions, self.random.randint(1, 3))
        glue = self.random.choice([" and ", " or "])
        values = glue.join(f"({condition})" for condition in chosen)
        text = (
            f"select carrier, count(*) as n, sum(flights) as flights, sum(dep_delay) as delay, max(tails) as tails "
            f"from traffic_hour where ({values}) and WHERE group by carrier order by n desc, carrier")
        return self.same("conditions on values", text, self.time(HOUR, (3, 60)))

    def moods(self):
        where = self.time(DAY, (10, 90))
        late = self.random.randint(10, 60)
        case = (f"case when dep_delay_avg > {late} then 'late' when dep_delay_avg is null then null "
                f"when dep_delay_avg < 0 then 'early' else 'fine' end")
        text = (
            f"select {case} as mood, count(*) as n, sum(flights) as flights, min(tails) as least, max(dests) as most "
            f"from traffic_day where WHERE group by {case} order by mood nulls last")
        return self.same("case over averages", text, where)

    def casts(self):
        where = self.both(self.time(DAY, (1, 10)), self.dimension())
        text = (
            f"select window_start, carrier, origin, cast(flights as decimal(12,2)) as two, cast(flights as text) as words, "
            f"coalesce(dep_delay, -1) as known, dep_delay_max - coalesce(dep_delay_min, 0) as spread, "
            f"flights > 20 as busy, cast(dep_delay_max as double) as real, km * 2 - km as km "
            f"from traffic_day where WHERE order by window_start, carrier, origin")
        return self.same("casts and arithmetic in rows", text, where)

    def routes(self):
        where = self.time(DAY, (2, 30))
        dest = self.random.choice(["LAX", "ORD", "ATL", "BOS", "SFO", "SEA"])
        text = (
            f"select window_start, carrier, dest, origin, flights, air_avg, air_min, last from routes_day "
            f"where dest = '{dest}' and WHERE order by window_start desc, carrier, dest, origin limit 80")
        return self.same("three group columns and a date", text, where)

    def distinct_carriers(self):
        window = self.window()
        where = self.time(window, (2, 40))
        least = self.random.randint(1, 6)
        text = (
            f"select dest, max(carriers) as most, min(carriers) as least, max(arr_delay_avg) as worst, count(*) as n "
            f"from arrivals_{window} where WHERE group by dest having max(carriers) >= {least} and count(*) > 1 "
            f"order by most desc, dest limit 30")
        return self.same("distinct counts read back", text, where)

    def days_of_23_and_25_hours(self):
        day = self.random.choice(["2013-03-10", "2013-11-03", "2013-03-09", "2013-11-04"])
        start = {"2013-11-03": "04"}.get(day, "05")
        absolute = f"window_start = '{day}T{start}:00:00Z'"
        text = (
            f"select window_start, carrier, origin, flights, left_gate, dep_delay_avg, tails from traffic_day "
            f"where WHERE order by carrier, origin")
        by_clock = f"window_start = '{day}'"
        return self.same(
            "a day of 23 or 25 hours", text, Filter(self.random.choice([absolute, by_clock]), "", absolute))

    def up_to_now(self):
        carrier = self.random.choice(CARRIERS)
        return Query(
            "now()",
            f"select carrier, sum(flights) as flights, max(window_start) as last from traffic_day "
            f"where window_start < now() and now() - interval '1 day' > window_start and carrier = '{carrier}' group by carrier",
            f"select carrier, count(*), max(day_start) from raw where carrier = '{carrier}' group by carrier",
            "vvv")

    TEMPLATES = [
        totals_by_carrier, totals_by_origin_and_carrier, whole_total, nothing_matches, average_delay, by_time,
        delayed_flights, cancelled_without_aircraft, tails_of_cancelled, destinations, destinations_ahead, late_or_not,
        kilometres_and_miles, averages_of_rows, rows_of_a_day, worst_rows, filtered_by_values, moods, casts, routes,
        distinct_carriers, days_of_23_and_25_hours, up_to_now,
    ]

    def generate(self, count):
        made = {}
        while len(made) < count:
            query = self.TEMPLATES[self.random.randrange(len(self.TEMPLATES))](self)
            made.setdefault(query.holdfast, query)
        return list(made.values())


def complete_tables(metric_tables):
    """Every row of every metric table, one query for each partition-key value: nothing is left uncompared."""
    for table, (_, groups, _, _) in metric_tables.items():
        key = groups[0]
        yield table, key, f"select * from {table} where {key} = '{{}}' order by window_start, " + ", ".join(
            f"{group} nulls first" for group in groups[1:] or [key])
