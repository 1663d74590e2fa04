"""Files that outlive a program: rows that anybody wrote, journals that a killed program goes on with, replacements."""
