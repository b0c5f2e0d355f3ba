"""Asks a running holdfast generated queries over the flights and compares every value with DuckDB's.

Usage: compare.py --folder FOLDER --server URL [--queries 240] [--seed 2013]    against holdfast
       compare.py --folder FOLDER --self-test [...]                             the oracle's sides against each other

FOLDER is what scripts/sample-flights printed. Ends with a line that counts what was compared, exit 0; or, at the first
differences, with both answers, exit 1. Every answer must say that it is exact.
"""

import argparse
import http.client
import json
import re
import sys
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from urllib.parse import urlsplit

import duckdb

import oracle
import queries

PAGE_ROWS = 5_000


class Holdfast:
    def __init__(self, url):
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)

    def ask(self, sql):
        """(columns as (name, type), rows as JSON, quality)"""
        body = json.dumps({"sql": sql, "require": "exact"})
        while True:
            self.connection.request("POST", "/api/v1/query", body, {"Content-Type": "application/json"})
            response = self.connection.getresponse()
            text = response.read()
            if response.status != 429:
                break
            time.sleep(min(1, int(response.headers["Retry-After"])))
        if response.status != 200:
            raise Difference(f"status {response.status}: {text.decode(errors='replace')}")
        answer = json.loads(text)
        return [(c["name"], c["type"]) for c in answer["columns"]], answer["rows"], answer["quality"]


class StandIn:
    """DuckDB's own metric tables in holdfast's place, to test this program and the oracle's two ways of asking."""

    TYPES = {"BIGINT": "int", "INTEGER": "int", "HUGEINT": "decimal(38,0)", "VARCHAR": "text", "DOUBLE": "double",
             "BOOLEAN": "bool", "TIMESTAMP": "timestamp", "DATE": "date", '"NULL"': "int"}

    def __init__(self, database):
        self.database = database.cursor()
        self.database.execute("set timezone = 'UTC'")

    @staticmethod
    def absolute(literal):
        """A literal without an offset goes by New York's clocks, and so does adding days to it."""
        text, days = literal.groups()
        local = datetime.fromisoformat(text) + timedelta(days=int(days or 0))
        return f"timestamp '{local.replace(tzinfo=oracle.ZONE).astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}'"

    def ask(self, sql):
        sql = sql.replace("now()", "timezone('UTC', now())")
        sql = re.sub(r"(?:timestamp )?'(\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d)?)'(?: \+ interval '(\d+) days')?", self.absolute, sql)
        for unit in ("day", "month"):
            local = "timezone('America/New_York', timezone('UTC', window_start))"
            cut = f"timezone('UTC', timezone('America/New_York', date_trunc('{unit}', {local})))"
            sql = sql.replace(f"date_trunc('{unit}', window_start)", cut)
        try:
            result = self.database.execute(sql)
        except duckdb.Error as error:
            raise Difference(f"DuckDB does not understand the query: {error}")
        columns = [(c[0], self.TYPES.get(str(c[1]), str(c[1]).lower())) for c in result.description]

        def encode(value, kind):
            if value is None or isinstance(value, (bool, str)):
                return value
            if isinstance(value, datetime):
                return value.isoformat() + "Z"
            if isinstance(value, date):
                return value.isoformat()
            return str(value) if kind.startswith("decimal") else value

        rows = [[encode(v, c[1]) for v, c in zip(row, columns)] for row in result.fetchall()]
        return columns, rows, {"exact": True}


class Difference(Exception):
    pass


def read_value(value, kind):
    """A value of an answer as Python's exact type for the declared column type."""
    if value is None:
        return None
    if kind == "int":
        return int(value)
    if kind.startswith("decimal("):
        if not isinstance(value, str):
            raise Difference(f"a {kind} is not a string: {value!r}")
        scale = int(kind[:-1].split(",")[1])
        number = Decimal(value)
        if -number.as_tuple().exponent != scale:
            raise Difference(f"{value} does not show the {scale} digits of {kind}")
        return number
    if kind == "double":
        return float(value)
    if kind == "timestamp":
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return moment.astimezone(timezone.utc).replace(tzinfo=None)
    if kind == "date":
        return date.fromisoformat(value)
    if kind not in ("text", "bool"):
        raise Difference(f"unknown column type {kind}")
    return value


def read_ratio(numerator, denominator, kind, loose):
    if numerator is None or not denominator:
        return None
    if loose:
        return float(Fraction(numerator) / Fraction(denominator))
    if not kind.startswith("decimal("):
        raise Difference(f"an exact quotient has the type {kind}")
    scale = int(kind[:-1].split(",")[1])
    if scale < 6:
        raise Difference(f"a quotient shows only {scale} digits")
    return Decimal(oracle.rounded(numerator, denominator, scale)).scaleb(-scale)


def same(ours, theirs):
    if ours == theirs and type(ours) is type(theirs):
        return True
    if ours is None or theirs is None:
        return ours is theirs
    exact = (int, Decimal)
    if isinstance(ours, exact) and isinstance(theirs, exact) and not isinstance(ours, bool):
        return Fraction(ours) == Fraction(theirs)
    if isinstance(ours, float) and isinstance(theirs, exact):
        return ours == float(theirs)
    return type(ours) is type(theirs) and ours == theirs


def compare(query, server, database, loose):
    """Raises Difference; returns how many values were compared."""
    columns, rows, quality = server.ask(query.holdfast)
    if quality.get("exact") is not True:
        raise Difference(f"the answer is not exact: {json.dumps(quality)}")
    if len(columns) != len(query.kinds):
        raise Difference(f"{len(columns)} columns instead of {len(query.kinds)}: {columns}")
    ours = [[read_value(value, kind) for value, (_, kind) in zip(row, columns)] for row in rows]
    theirs = []
    for row in database.execute(query.oracle).fetchall():
        values = iter(row)
        theirs.append([
            read_ratio(next(values), next(values), kind, loose) if letter == "r" else next(values)
            for letter, (_, kind) in zip(query.kinds, columns)
        ])
    if len(ours) != len(theirs):
        raise Difference(f"{len(ours)} rows instead of {len(theirs)}")
    if not query.ordered:
        ours.sort(key=repr)
        theirs.sort(key=repr)
    for number, (mine, other) in enumerate(zip(ours, theirs), 1):
        for (name, kind), letter, a, b in zip(columns, query.kinds, mine, other):
            if loose and letter == "r" and a is not None and b is not None and abs(float(a) - b) <= 1e-9 * abs(b) + 1e-9:
                continue
            if not same(a, b):
                raise Difference(f"row {number}, column {name} ({kind}): holdfast {a!r}, DuckDB {b!r}\n"
                                 f"  holdfast's row: {mine}\n  DuckDB's row:   {other}")
    return len(ours) * len(columns)


def complete_queries(database):
    """Pages, since an answer has a limit of rows."""
    for table, key, sql in queries.complete_tables(oracle.METRIC_TABLES):
        width = len(database.execute(f"describe {table}").fetchall())
        counts = database.execute(f"select {key}, count(*) from {table} group by {key} order by 1").fetchall()
        for value, rows in counts:
            for offset in range(0, rows + 1, PAGE_ROWS):
                text = f"{sql.format(value)} limit {PAGE_ROWS} offset {offset}"
                yield queries.Query(f"all of {table}", text, text, "v" * width)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--server")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--queries", type=int, default=240)
    parser.add_argument("--seed", type=int, default=2013)
    arguments = parser.parse_args()
    if bool(arguments.server) == arguments.self_test:
        parser.error("give either --server or --self-test")

    started = time.monotonic()
    database = oracle.connect(arguments.folder)
    if arguments.self_test:
        print(f"{oracle.check_averages(database)} averages of the oracle equal Python's fractions")
    server = StandIn(database) if arguments.self_test else Holdfast(arguments.server)
    prepared = time.monotonic()

    failed = 0

    def run(batch):
        nonlocal failed
        values = count = empty = 0
        for query in batch:
            try:
                compared = compare(query, server, database, arguments.self_test)
                values += compared
                empty += compared == 0
                count += 1
            except Difference as difference:
                failed += 1
                if failed <= 20:
                    print(f"DIFFERENT ({query.name}): {difference}\n  holdfast: {query.holdfast}\n  oracle:   {query.oracle}",
                          file=sys.stderr)
        return count, values, empty

    count, values, empty = run(queries.Generator(arguments.seed).generate(arguments.queries))
    # Against itself that would be the same text twice.
    whole_count, whole_values, _ = run([] if arguments.self_test else complete_queries(database))
    spent = time.monotonic() - prepared
    print(f"{count} generated queries equal, {values} values, {empty} answers without rows (seed {arguments.seed})")
    print(f"{whole_count} pages, which are all rows of {len(oracle.METRIC_TABLES)} metric tables, equal, {whole_values} values")
    print(f"oracle prepared in {prepared - started:.1f} s, compared in {spent:.1f} s")
    if failed:
        print(f"{failed} queries differ")
        sys.exit(1)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
