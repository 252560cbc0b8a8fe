"""Steps from the tables of one version of this software to those of the next, by Alembic."""
