"""The papers' tables: their settings and figures, and what runs them."""
