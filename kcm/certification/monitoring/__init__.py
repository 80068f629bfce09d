"""Whether a promise still holds: alarms on audited traffic, drift, and the trial of a challenger."""
