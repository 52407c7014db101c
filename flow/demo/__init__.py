"""The whole way of messages as a story on embedded parts, and the parts of it that tests use as well."""
