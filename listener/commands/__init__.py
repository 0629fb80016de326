"""The commands of `listener`, by subject. What only one of them needs is imported by that one."""
