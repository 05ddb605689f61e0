"""What a person sees: tables, charts, reports and progress on a terminal."""
