"""Whether a promise still holds: alarms on audited traffic, new classes, and the trial of a challenger."""
