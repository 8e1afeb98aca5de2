"""How good models are, and which to choose: protocols, calibration, cold users, comparing, tuning, reports."""
