"""What `flow demo` and the tests run against: a private RabbitMQ node."""
