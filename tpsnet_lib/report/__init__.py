"""What people look at: figures, executed notebooks, the report's page."""
