"""Forms of labels that can be converted, a module each, beside what they have in common."""
