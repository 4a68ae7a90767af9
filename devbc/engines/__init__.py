"""Engines that run verified programs, and the native code that they share."""
