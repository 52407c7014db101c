"""What can be known of pipelines, broker and queues before anything is consumed."""
