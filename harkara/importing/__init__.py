"""Contacts from CSV files as people save them: from bytes to rows, and from rows to contacts. No database, no HTTP."""
