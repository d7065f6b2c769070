"""Callbacks: what is posted to apps (`bodies`), how it is signed (`signing`), where it goes (`endpoint`), when it is
tried again (`schedule`) and in which order (`stream`). Everything here is pure; `services/callback-delivery` does it.
"""
