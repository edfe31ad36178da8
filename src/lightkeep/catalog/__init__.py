"""The catalogue: what exists, who may see it, and the audit trail.

    catalog = Catalog.open("sqlite:////srv/lightkeep/catalog.db", clock=SystemClock(), ids=SystemIds())
    with catalog.change(principal) as tx:
        tx.add_station(Station("2-BM-A"))
    catalog.view(principal).datasets(parse("technique:tomography energy:8..30keV"))

`view` reads what a principal may see, `change` writes, `query` is the language of the search box; `sqlite` and
`postgres` hold all that the two databases do differently.
"""

from lightkeep.catalog.catalog import Catalog
from lightkeep.catalog.changes import Change
from lightkeep.catalog.page import Page
from lightkeep.catalog.query import Query, parse
from lightkeep.catalog.sources import SourceKey
from lightkeep.catalog.view import View

__all__ = ["Catalog", "Change", "Page", "Query", "SourceKey", "View", "parse"]
