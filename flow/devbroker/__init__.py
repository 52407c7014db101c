"""An AMQP 0-9-1 broker in memory, for development and tests; production is RabbitMQ.

`flow.devbroker.server.DevBroker` is the broker, `flow.devbroker.faults` what can go wrong on purpose.
"""
