"""Bugs that were put in on purpose, to show that the suite catches them: `make seeded`."""
