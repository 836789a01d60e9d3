"""Tests of ttrpc. A package, so that they can share the service below, also where this folder is copied to."""
