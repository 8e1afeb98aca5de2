"""What a person sees: pictures from plain data, tables on a terminal, parts of a page."""
