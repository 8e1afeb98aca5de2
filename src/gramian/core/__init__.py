"""What everything is built on beside arrays: checked parameters, the file format, the history, progress."""
