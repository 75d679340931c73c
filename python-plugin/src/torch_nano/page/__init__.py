"""Self-contained pages: pictures as SVG and a template. Styles follow the reader's light or dark mode."""
