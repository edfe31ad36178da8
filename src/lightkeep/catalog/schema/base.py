"""What the tables share."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, MetaData

Serial = BigInteger().with_variant(Integer(), "sqlite")  # INTEGER PRIMARY KEY is SQLite's own row number

tables = MetaData()
