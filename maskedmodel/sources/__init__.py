"""What data sources share: files in folders and archives, their labels and their splits."""
