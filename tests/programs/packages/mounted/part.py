WHERE = "from the mount"
