"""Families: one file each says what a kind of pipeline is made of; catalogue.py names them all."""
