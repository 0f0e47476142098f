"""What a candidate takes of its device, judged part by part and equal to what a compile plans and packs."""
