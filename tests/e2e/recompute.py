"""Recomputes the shop's metric tables from the final rows, with SQLite. Reads the rows as JSON, writes the tables as JSON.

Usage: recompute.py TIMEZONE <rows >tables
"""

import json
import sqlite3
import sys
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from zoneinfo import ZoneInfo


def decimal(number, digits):
    sign, number = ("-", -number) if number < 0 else ("", number)
    return f"{sign}{number // 10**digits}.{number % 10**digits:0{digits}}"


def rounded(value):
    """Half away from zero."""
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


def days(zone, first, last):
    """(start, end) of each local day, as Unix seconds."""
    day = datetime.fromtimestamp(first, zone).date() - timedelta(days=1)
    while True:
        start, end = (datetime(d.year, d.month, d.day, tzinfo=zone) for d in (day, day + timedelta(days=1)))
        if start.timestamp() > last:
            return
        yield int(start.timestamp()), int(end.timestamp())
        day += timedelta(days=1)


def main(zone):
    orders = json.load(sys.stdin)
    database = sqlite3.connect(":memory:")
    database.execute("create table orders (order_id, merchant_id, status, channel, cents, buyer_id, paid_at)")
    database.executemany("insert into orders values (?, ?, ?, ?, ?, ?, ?)", orders)
    database.execute("create table days (starts, ends)")
    (first, last), = database.execute("select min(paid_at), max(paid_at) from orders")
    if first is not None:
        database.executemany("insert into days values (?, ?)", days(zone, first, last))

    tables = {}
    for metric, where, groups in (("gmv", "status = 'paid'", "merchant_id, channel"), ("placed", "true", "merchant_id")):
        for window, start in (("hour", "paid_at / 3600 * 3600"), ("day", "starts")):
            rows = database.execute(
                f"select {start} as starts, {groups}, count(*), sum(cents), min(cents), max(cents), count(distinct buyer_id) "
                f"from orders join days on paid_at >= days.starts and paid_at < days.ends where {where} group by 1, {groups}")
            tables[f"{metric}_{window}"] = [
                [datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), str(names[0]), *names[1:],
                 str(count), decimal(total, 2), decimal(rounded(Fraction(total, count) * 10**4), 6), decimal(least, 2),
                 decimal(most, 2), str(buyers)]
                for at, *names, count, total, least, most, buyers in rows
            ]
    json.dump(tables, sys.stdout)


if __name__ == "__main__":
    main(ZoneInfo(sys.argv[1]))
