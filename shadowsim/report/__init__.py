"""Renders results for people: terminal text, HTML pages, notebook cards."""
