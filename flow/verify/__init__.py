"""Verifying pipelines under seeded faults: is all settled, and had what is called delivered arrived?"""
