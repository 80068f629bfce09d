"""The HTTP doors: routes, keys, limits and the page."""
