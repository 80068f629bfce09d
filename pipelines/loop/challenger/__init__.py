"""A challenger learns the window as one more task of the champion's sequence."""
