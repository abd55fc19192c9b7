package traffic

import "github.com/RoaringBitmap/roaring/v2"

// Missing is what was acknowledged and never received: the data that were lost.
func Missing(acked, received *roaring.Bitmap) *roaring.Bitmap { return roaring.AndNot(acked, received) }

// ranges lists the numbers of a set as inclusive ranges in ascending order.
func ranges(set *roaring.Bitmap) [][2]uint32 {
	out := [][2]uint32{}
	buffer := make([]uint32, 4096)
	for it := set.ManyIterator(); ; {
		n := it.NextMany(buffer)
		if n == 0 {
			return out
		}
		for _, number := range buffer[:n] {
			if last := len(out) - 1; last >= 0 && number == out[last][1]+1 {
				out[last][1] = number
			} else {
				out = append(out, [2]uint32{number, number})
			}
		}
	}
}

// setOf is the inverse of ranges. A range that ends before it begins is empty.
func setOf(ranges [][2]uint32) *roaring.Bitmap {
	set := roaring.New()
	for _, r := range ranges {
		set.AddRange(uint64(r[0]), uint64(r[1])+1)
	}
	return set
}
