"""The report: notebooks executed, turned into HTML and put together as one page."""
