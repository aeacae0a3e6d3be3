"""The steps of the schema: Alembic revisions whose substance is plain SQL."""
