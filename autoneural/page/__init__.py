"""Self-contained HTML reports: one template environment, one style, a few pieces of SVG."""
