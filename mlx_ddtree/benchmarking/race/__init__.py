"""A race: several programs answer prompts with one pair, in turns, each in a process of its own."""
