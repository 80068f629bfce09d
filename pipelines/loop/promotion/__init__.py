"""Promotion: the gates of a challenger, its trial on traffic, and the champion's pointer."""
