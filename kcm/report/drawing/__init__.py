"""What the page is drawn with: markup that is escaped by construction, and plots as SVG."""
