"""Find the homography between two photographs with OpenCV.

python SCRIPT [A B]
"""

import sys
from pathlib import Path

import cv2
import numpy as np

DATA = Path(__file__).parent / "data"
paths = sys.argv[1:] or [str(DATA / "graffiti_a.jpg"), str(DATA / "graffiti_b.jpg")]

image_a, image_b = (cv2.imread(path) for path in paths)
feature = cv2.SIFT_create()
keypoints_a, descriptors_a = feature.detectAndCompute(image_a, None)
keypoints_b, descriptors_b = feature.detectAndCompute(image_b, None)

pairs = cv2.BFMatcher(feature.defaultNorm()).knnMatch(descriptors_a, descriptors_b, k=2)
matches = [best for best, second in pairs if best.distance < 0.8 * second.distance]
points_a = np.float32([keypoints_a[match.queryIdx].pt for match in matches])
points_b = np.float32([keypoints_b[match.trainIdx].pt for match in matches])
homography, inliers = cv2.findHomography(points_a, points_b, cv2.RANSAC, 5.0)

print(f"{len(matches)} matches, {int(inliers.sum())} of them on one plane")
print(homography.round(7))
drawn = cv2.drawMatches(
    image_a, keypoints_a, image_b, keypoints_b, matches, None, matchesMask=inliers.ravel().tolist()
)
cv2.imwrite("homography.png", drawn)
