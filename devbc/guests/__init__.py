"""Where exits come from: recorded guests."""
