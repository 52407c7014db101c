"""The stages of a pipeline: processor, batcher, deliverer, acknowledger, parker."""
