"""The command line face."""


def main() -> None:
    """Run the command line."""
    raise SystemExit("not yet")
