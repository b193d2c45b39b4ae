"""Helpers without nnU-Net: files, processes, extras, random states."""
